"""What is found leaves PyTorch as any other network does: with the same outputs."""

import pytest
import torch
from effconv_core import apply_plan, searched_layers
from torch import nn

pytestmark = pytest.mark.slow


def lines():
    """Padding modes, even sizes and strides, which make layers of padding."""
    return nn.Sequential(
        nn.Conv1d(3, 8, 3),
        nn.Conv1d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv1d(8, 8, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv1d(8, 8, 5, padding=2, padding_mode="replicate"),
        nn.Conv1d(8, 4, 3, padding=1, padding_mode="circular"),
    )


def torchvision_model(name):
    return getattr(pytest.importorskip("torchvision.models"), name)(num_classes=10)


MODELS = {
    "lines": lines,
    "resnet18": lambda: torchvision_model("resnet18"),
    "mobilenet_v3_small": lambda: torchvision_model("mobilenet_v3_small"),
    "convnext": lambda: pytest.importorskip("timm").create_model("convnext_atto", num_classes=10),
}


# `convnext` has its depthwise layers, and `resnet18` its normalisation; the rest is of PyTorch.
LESS = {"mobilenet_v3_small"}


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.long] * (n in LESS)) for n in MODELS])
def found(request):
    """A CNN with all sizes from 1 to 7, and what it takes."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)  # they begin at 1e-6, which would hide the branches
    plan = {name: 1 + (3 * place + 3) % 7 for place, name in enumerate(searched_layers(model))}
    cnn = apply_plan(model, plan)
    images = torch.randn((2, 3, 40) if request.param == "lines" else (2, 3, 64, 64))
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        cnn.train()(images)  # without statistics of images signals fade in evaluation
        assert cnn.eval()(images).std() > 0.01
    return cnn, images


def test_torch_export_gives_the_same_outputs(found):
    cnn, images = found
    exported = torch.export.export(cnn, (images,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images), cnn(images))


def test_onnx_gives_the_same_outputs_in_onnxruntime(found, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    cnn, images = found
    path = tmp_path / "cnn.onnx"
    torch.onnx.export(cnn, (images,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    (output,) = session.run(None, {name: images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), cnn(images), atol=1e-4, rtol=1e-4)


def test_torch_compile_gives_the_same_outputs_and_gradients():
    torch.manual_seed(0)
    cnn = apply_plan(lines(), {"1": 4, "3": 2, "4": 6, "5": 3})
    compiled, images = torch.compile(cnn), torch.randn(2, 3, 40)
    expected = cnn(images)
    torch.testing.assert_close(compiled(images), expected)
    gradients = torch.autograd.grad(expected.square().sum(), cnn.parameters())
    found = torch.autograd.grad(compiled(images).square().sum(), cnn.parameters())
    for mine, other in zip(found, gradients):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
