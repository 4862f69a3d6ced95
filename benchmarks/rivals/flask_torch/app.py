"""What people have: Flask and PyTorch, here under gunicorn."""

from flask import Flask, request
from model import analyze

app = Flask(__name__)


@app.post("/analyze")
def upload():
    return analyze(request.files["image"].read())
