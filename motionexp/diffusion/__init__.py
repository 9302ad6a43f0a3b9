"""Schedules, windows, the sampling loop and its inverse, and the interface of a backbone."""

import torch  # noqa: F401

from motionexp.diffusion.imports import defer, defer_compiler

# Before diffusers, transformers or lightning is imported: their importers import this package first.
defer_compiler()
defer("scipy.stats")  # diffusers' schedulers import it, for sigmas that no backbone has
