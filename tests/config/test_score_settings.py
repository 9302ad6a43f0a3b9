"""The settings of `python run.py score`."""

import pytest

from motionexp.config.score import load_score
from motionexp.errors import InputError


def test_settings_have_defaults_and_text_needs_no_quotes(tmp_path):
    folder = tmp_path / "Their system, v2 (final)"
    folder.mkdir()
    cfg = load_score([f"folder={folder}", "system=theirs", "data=tgve", f"data.path={folder}", "frames=16"])
    assert (cfg.folder, cfg.name, cfg.frames, cfg.references) == (str(folder), "theirs", 16, None)
    assert cfg.data == {"_target_": "motionexp.data.tgve.TGVE", "path": str(folder), "fit": "crop"}
    assert not cfg.scoring.sanity_baselines
    (tmp_path / "videos.csv").write_text("")
    cfg = load_score([f"folder={tmp_path}/videos.csv", "scoring.sanity_baselines=true"])
    assert (cfg.name, cfg.scoring.sanity_baselines) == ("videos", True)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["folder=null"], "folder="),
        (["folder=/nowhere/at/all"], "folder=/nowhere/at/all"),
        (["system=a/b"], "system=a/b: "),
        (["frames=0"], "frames=0"),
        (["metrics=[fid]"], "metrics=[fid]"),
        (["metrics=[]"], "metrics=[]"),
        (["plugins=[os]"], "plugins: "),
        (["+tau=700"], "tau: "),
        (["data=tgve", "+data.paht=x"], " data.path?"),
        (["data=tgve", "data.fit=3"], "data.fit=3"),
        (["data._target_=os.system"], "plugins=[os]"),
        (["data=clip"], "data=clip: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path, wrong, named):
    with pytest.raises(InputError) as caught:
        load_score([f"folder={tmp_path}", *wrong])
    assert named in str(caught.value)
