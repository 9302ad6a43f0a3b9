"""Models that are conditioned on an image, and what is wrong with `image=`. Imports no torch."""

import os
from collections.abc import Collection, Iterator

from motionexp.config.command_line import choice_hint
from motionexp.config.schema import JobConfig, ModelConfig
from motionexp.config.targets import class_value
from motionexp.errors import InputError
from motionexp.files import user_path


def takes_image(model: ModelConfig, plugins: Collection[str] = ()) -> bool:
    """Whether the model's class says that its videos are conditioned on their first frame."""
    try:
        return class_value(model._target_.rpartition(".")[0], "takes_image", plugins) is True
    except InputError:
        return False  # there is no such class, or its package may not run: a problem of its own


def image_problems(cfg: JobConfig) -> Iterator[str]:
    """What is wrong with `image=`; a suite's own images are looked at when it is read."""
    if cfg.image is not None and not takes_image(cfg.model, cfg.plugins):
        yield (
            f"image={cfg.image}: model={cfg.model.name} makes videos of captions alone; take an"
            " image-to-video model, such as model=wan_i2v_14b, or leave it out"
        )
    elif cfg.image is not None and not os.path.isfile(user_path(cfg.image)):
        yield f"image={cfg.image}: there is no such file{choice_hint('image', cfg.image)}"
    elif (
        cfg.image is None
        and cfg.edits is not None
        and cfg.probe is None
        and takes_image(cfg.model, cfg.plugins)
    ):
        yield (
            f"image=: model={cfg.model.name} makes videos that begin with a picture, and edits= has none:"
            " give image=photo.png"
        )
