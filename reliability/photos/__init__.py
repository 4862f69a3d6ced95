"""Photos that are meant to do harm, made by code: damaged, lying, far too large, far too slow, or no photos at all."""
