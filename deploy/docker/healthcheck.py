#!/usr/bin/env python3
"""Exits with 0 if the URL answers 200: slim images have no curl."""

import http.client
import sys
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=8)  # noqa: S310 - the image sets the URL
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
