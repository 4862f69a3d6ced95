"""FastAPI and ONNX Runtime under uvicorn with a worker for each core."""

from fastapi import FastAPI, File
from reading import answer, infer, pixels, sessions

app = FastAPI()
loaded = sessions()


# Not async: FastAPI runs it in a thread, so that a decoding does not hold up the event loop.
@app.post("/analyze")
def analyze(image: bytes = File()):
    return answer({head: rows[0] for head, rows in infer(loaded, pixels(image)[None]).items()})
