"""Flask and ONNX Runtime under gunicorn, as Flask's documentation deploys it.

A worker for each core, and threads, because gunicorn's workers without them close each connection after one answer.
"""

from flask import Flask, request
from reading import analyze, sessions

app = Flask(__name__)
loaded = sessions()


@app.post("/analyze")
def upload():
    return analyze(loaded, request.files["image"].read())
