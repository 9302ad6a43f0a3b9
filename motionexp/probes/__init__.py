"""Experiments on an unchanged backbone along the denoising trajectory."""
