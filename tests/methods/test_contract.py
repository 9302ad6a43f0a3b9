"""What every tuning method must do: tests every method of motionexp/methods/, with no list by hand."""

import math
import signal
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch

from motionexp.diffusion.schedule import Window
from motionexp.methods.adapters import find_method, load_adapter, save_adapter
from motionexp.methods.lora import LoRA
from motionexp.methods.training import fit
from tests.support.guidance_runs import GUIDANCE
from tests.support.training_runs import (
    FOLDER,
    METHODS,
    RECIPE,
    SETTINGS,
    attach,
    change,
    configured,
    copied,
    interrupt_at,
    run,
)

ROOT = FOLDER.parent.parent
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def whole_runs(loaded, examples, tmp_path_factory):
    """By method the result and the tensors of an uninterrupted training, computed once."""

    @cache
    def whole(name):
        return run(deepcopy(loaded), examples, tmp_path_factory.mktemp(name), name)

    return whole


def test_a_method_is_a_module_and_an_option_of_one_name():
    assert sorted({path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")} - {*GUIDANCE}) == METHODS
    assert {"lora", "full_rank"} <= set(METHODS)


@every_method
def test_it_leaves_the_network_as_it_was(name, backbone, predict):
    network, base = backbone.network, predict()
    attributes, modules = set(vars(network)), dict(network.named_modules())
    tensors = {key: (tensor, tensor.clone()) for key, tensor in network.named_parameters()}
    pointers = {tensor.data_ptr() for tensor in network.parameters()}
    method = attach(name, backbone, Window(0))
    with pytest.raises(RuntimeError, match=r"remove\(\)"):
        LoRA(backbone, Window(0))
    assert {tensor.data_ptr() for tensor in network.parameters()} >= pointers, "the network is copied"
    change(method)
    method.switch(True)
    method.scale = 0.5
    predict()
    method.remove()
    assert dict(network.named_modules()) == modules
    assert [*network.state_dict()] == [*tensors]
    for key, tensor in network.named_parameters():
        assert tensor is tensors[key][0]
        assert torch.equal(tensor, tensors[key][1])
        assert not tensor.requires_grad
    assert set(vars(network)) == attributes
    assert torch.equal(predict(), base)


@every_method
def test_it_is_on_exactly_inside_its_window(name, backbone, predict):
    base = predict()
    method = attach(name, backbone, Window(700, 900))
    change(method)
    assert torch.equal(predict(), base), "after its construction it is off"
    for t, inside in ((0, False), (699, False), (700, True), (900.0, True), (901, False), (None, False)):
        assert method.set_active(t) is inside
        assert torch.equal(predict(), base) is not inside
    method.window = Window(1000)
    assert not method.set_active(1000)
    assert torch.equal(predict(), base)


@every_method
def test_reset_gives_the_untrained_output_which_is_the_base_models(name, backbone, predict):
    base = predict()
    method = attach(name, backbone, Window(0))
    method.switch(True)
    untrained = predict()
    assert torch.equal(untrained, base) is method.starts_as_base
    change(method)
    assert not torch.equal(predict(), untrained)
    method.scale = 0.0
    torch.testing.assert_close(predict(), base)
    method.scale = 1.0
    method.reset(seed=3)
    assert torch.equal(predict(), untrained)


@every_method
def test_trainable_parameters_are_what_is_trained(name, backbone, examples, tmp_path):
    count = find_method(name).trainable_parameters(backbone, Window(700), **configured(name))
    result, tensors = run(backbone, examples, tmp_path, name, replace(SETTINGS, steps=1))
    method = attach(name, backbone, Window(700))
    saved = sum(tensor.numel() for tensor in tensors.values())
    auxiliary = sum(tensor.numel() for tensor in method.auxiliary.values())
    assert result.trained == saved + auxiliary == count
    assert saved > 0
    assert tensors.keys() == method.parameters.keys()
    assert tensors.keys().isdisjoint(method.auxiliary)
    method.switch(True)
    requires_grad = {id(tensor) for tensor in backbone.network.parameters() if tensor.requires_grad}
    assert requires_grad == {id(tensor) for tensor in method.parameters.values()}


@every_method
def test_a_saved_adapter_acts_as_before_in_its_window(name, backbone, predict, tmp_path):
    base = predict()
    method = attach(name, backbone, Window(400, 900, ((400.0, 0.0), (900.0, 1.0))))
    change(method)
    method.switch(True)
    tuned = predict()
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    for path in (tmp_path, tmp_path / "adapter.safetensors"):
        loaded = load_adapter(path, backbone)
        assert type(loaded) is find_method(name)
        assert (loaded.window, loaded.settings) == (method.window, method.settings)
        assert torch.equal(predict(), base)
        loaded.switch(True)
        assert torch.equal(predict(), tuned)
        loaded.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


@every_method
def test_training_lowers_the_loss_and_leaves_the_network_alone(name, backbone, examples, tmp_path):
    network = backbone.network
    before = {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in network.named_parameters()}
    pointers = {pointer for pointer, _ in before.values()}
    seen = []

    def look(done):
        now = {tensor.data_ptr() for tensor in network.parameters()}
        seen.append(now >= pointers and not network.training)

    settings = replace(SETTINGS, steps=40, preview_every=20)
    result, _ = run(backbone, examples[:1], tmp_path, name, settings, on_preview=look)
    assert sum(result.losses[-10:]) < 0.95 * sum(result.losses[:10])
    assert seen == [True, True]
    for key, tensor in network.named_parameters():
        assert (tensor.data_ptr(), tensor.grad) == (before[key][0], None)
        assert torch.equal(tensor, before[key][1])


@every_method
def test_tuned_tensors_are_fp32_beside_a_bf16_network(name, loaded, examples, tmp_path):
    backbone = deepcopy(loaded)
    backbone.network.to(torch.bfloat16)
    backbone.dtype = torch.bfloat16
    method = attach(name, backbone, Window(0))
    before = copied(method)
    change(method, size=1e-6)  # lost in bf16
    assert all(not torch.equal(before[key], tensor) for key, tensor in method.state().items())
    method.remove()
    result, tensors = run(backbone, examples, tmp_path, name)
    assert all(math.isfinite(loss) for loss in result.losses)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert {tensor.dtype for tensor in backbone.network.parameters()} == {torch.bfloat16}


@every_method
def test_previews_do_not_change_the_training(name, whole_runs, backbone, examples, tmp_path):
    whole, tensors = whole_runs(name)
    method = attach(name, backbone, Window(700))
    seen = []

    def preview(done):
        assert not torch.is_grad_enabled()
        seen.append(done)
        method.scale = 0.5
        method.set_active(10)
        torch.manual_seed(done)

    settings = replace(SETTINGS, preview_every=3)
    result = fit(backbone, method, examples, settings, tmp_path, on_preview=preview, progress=False)
    assert seen == [3, 6]
    assert result.losses == whole.losses
    assert all(torch.equal(tensors[key], tensor) for key, tensor in method.state().items())
    assert method.scale == 1.0


@every_method
def test_an_interrupted_training_resumes_with_the_same_losses(name, whole_runs, backbone, examples, tmp_path):
    whole, tensors = whole_runs(name)
    settings = replace(SETTINGS, checkpoint_every=3, preview_every=1)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(backbone, examples, tmp_path, name, settings, on_preview=interrupt_at(5))
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    for done in (5, 8):  # the second run continues a finished one
        resumed, state = run(backbone, examples, tmp_path, name, replace(settings, preview_every=0))
        assert (resumed.resumed_from, resumed.losses) == (done, whole.losses)
        assert all(torch.equal(tensors[key], tensor) for key, tensor in state.items())


@every_method
def test_a_longer_run_passes_through_the_shorter_ones(name, backbone, examples, tmp_path):
    stored = {}
    method = attach(name, backbone, Window(700))

    def keep(result):
        stored[len(result.losses)] = result, copied(method)

    settings = replace(SETTINGS, steps=5, keep_steps=(3, 5), checkpoint_every=2)
    whole = fit(backbone, method, examples, settings, tmp_path / "long", progress=False, on_keep=keep)
    method.remove()
    short, tensors = run(backbone, examples, tmp_path / "short", name, replace(SETTINGS, steps=3))
    assert sorted(stored) == [3, 5]
    assert (stored[3][0].losses, stored[3][0].trained) == (short.losses, short.trained)
    assert all(torch.equal(stored[3][1][key], tensor) for key, tensor in tensors.items())
    assert stored[5][0].losses == whole.losses


# a new method
