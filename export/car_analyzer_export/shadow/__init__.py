"""Tries a version on real photos before it is served: gateways send a share of theirs to it, too."""
