"""Flask and ONNX Runtime under gunicorn, as Flask's documentation deploys it, with a worker for each core."""

from flask import Flask, request
from reading import analyze, sessions

app = Flask(__name__)
loaded = sessions()


@app.post("/analyze")
def upload():
    return analyze(loaded, request.files["image"].read())
