"""FastAPI and ONNX Runtime, installed and started as FastAPI's documentation does: `fastapi run` with workers.

`fastapi[standard]` brings uvloop and httptools. With plain uvicorn and workers, every answer on a kept connection waits
40 ms for an acknowledgement.
"""

from fastapi import FastAPI, File
from reading import analyze, sessions

app = FastAPI()
loaded = sessions()


# Not async: FastAPI runs it in a thread, so that a decoding does not hold up the event loop.
@app.post("/analyze")
def upload(image: bytes = File()):
    return analyze(loaded, image)
