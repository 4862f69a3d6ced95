"""Requests that no client should send: wrong, lying, endless, or no requests at all."""
