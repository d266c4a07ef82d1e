"""Networks of torchvision and timm, from their first search step to the found CNN.

Their code is as it is; three are made with fewer weights and two of fewer blocks, to be quick.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from effconv_core import Budget, Macs, SearchableCNN, apply_plan, recipe
from effconv_core.method.kernel_bank import window_of
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

pytestmark = pytest.mark.slow
models = pytest.importorskip("torchvision.models")
timm = pytest.importorskip("timm")


def wide_resnet():
    return models.resnet.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], 10, width_per_group=128)


def vgg():
    model = models.vgg11_bn(init_weights=False, dropout=0.0)
    model.classifier = nn.Linear(512 * 49, 10)  # its own has 120 million weights
    return model


def r2plus1d():
    video = models.video.resnet
    makers, stem = [video.Conv2Plus1D] * 4, video.R2Plus1dStem
    return video.VideoResNet(video.BasicBlock, makers, [1, 1, 1, 1], stem, num_classes=10)


def inception():
    return models.inception_v3(num_classes=10, aux_logits=False, init_weights=False)


def short_inception():
    model = inception()
    # Each has a like before it.
    for name in ("Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"):
        setattr(model, name, nn.Identity())
    return model


TORCHVISION = {
    "resnet18": lambda: models.resnet18(num_classes=10),
    "wide_resnet": wide_resnet,
    "resnext50_32x4d": lambda: models.resnext50_32x4d(num_classes=10),
    "densenet121": lambda: models.densenet121(num_classes=10),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=10, stochastic_depth_prob=0.0),
    "convnext_tiny": lambda: models.convnext_tiny(num_classes=10, stochastic_depth_prob=0.0),
    "vgg11_bn": vgg,
    "squeezenet1_1": lambda: models.squeezenet1_1(num_classes=10),
    "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(num_classes=10),
    "mnasnet0_5": lambda: models.mnasnet0_5(num_classes=10),
    "regnet_y_400mf": lambda: models.regnet_y_400mf(num_classes=10),
    "googlenet": lambda: models.googlenet(num_classes=10, aux_logits=False, init_weights=False),
    "inception_v3": inception,
    "r2plus1d": r2plus1d,
    "lraspp": lambda: models.segmentation.lraspp_mobilenet_v3_large(
        num_classes=5, weights_backbone=None
    ),
}
TIMM = [
    "resnet10t",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "convnext_atto",
    "regnetx_002",
    "ghostnet_050",
    "tf_efficientnet_lite0",
    "convmixer_768_32",
    "mixnet_s",
    "repvgg_a0",
    "edgenext_xx_small",
]
NAMES = [*TORCHVISION, *(f"timm/{name}" for name in TIMM)]
TORCHVISION["short inception_v3"] = short_inception
PER_AXIS = ["short inception_v3", "resnext50_32x4d", "timm/mobilenetv3_small_050"]
# Of each kind of layer and of forward the others have one, or these are there per axis.
LESS = {
    *("wide_resnet", "mobilenet_v2", "efficientnet_b0", "vgg11_bn", "squeezenet1_1", "mnasnet0_5"),
    *("regnet_y_400mf", "googlenet", "inception_v3", "timm/resnet10t", "timm/efficientnet_lite0"),
    *("timm/mobilenetv3_small_050", "timm/convnext_atto", "timm/regnetx_002"),
}
CASES = [
    *(pytest.param(name, False, marks=[pytest.mark.long] * (name in LESS)) for name in NAMES),
    *((name, True) for name in PER_AXIS),
]


def make(name_of_model: str) -> nn.Module:
    torch.manual_seed(0)
    if name_of_model.startswith("timm/"):
        model = timm.create_model(
            name_of_model.removeprefix("timm/"), pretrained=False, num_classes=10
        )
        if "convmixer" in name_of_model:
            model.blocks = model.blocks[:8]  # of 32 that are alike
    else:
        model = TORCHVISION[name_of_model]()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # some begin at 0, which hides the branch
            module.momentum = 1.0
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "layer_scale")):
            nn.init.uniform_(parameter, 0.5, 1.5)  # they begin at 1e-6, which all but hides it
    # With the statistics of some images, without which signals fade on their way in evaluation.
    with torch.no_grad():
        model.train()(images_for(name_of_model))
    return model.eval()


def images_for(name: str) -> Tensor:
    # Large enough for the last layers' rings to lie within the feature maps.
    if name == "r2plus1d":
        return torch.randn(2, 3, 16, 32, 32)
    wide = ("timm/mixnet_s", "timm/edgenext_xx_small", "inception_v3", "short inception_v3")
    width = 160 if name in wide else 64
    return torch.randn(2, 3, width, width)


def tensor_of(output: Tensor | dict[str, Tensor]) -> Tensor:
    return output["out"] if isinstance(output, dict) else output


def macs(model: nn.Module, images: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() // 2


def middle(cost, space) -> float:
    low, high = cost(space.smallest()), cost(space.largest())
    return low + 0.3 * (high - low)


@pytest.mark.parametrize(
    ("name", "per_axis"), CASES, ids=[*NAMES, *(f"{name} per axis" for name in PER_AXIS)]
)
def test_from_the_first_step_to_the_found_cnn(name, per_axis):
    model, images = make(name), images_for(name)
    with torch.no_grad():
        expected = tensor_of(model(images))
    # Sizes 1 to 5 keep the banks small; without exploration every ring lies within the images.
    settings = recipe(
        "default",
        k=2,
        exploration=0.0,
        finalists=1,
        size_lr=1e-4,
        kernel_lr=1e-4,
        cnn_lr=1e-4,
        b=-0.35,
    )
    searchable = SearchableCNN(model, settings, per_axis=per_axis)

    # The searchable network with the original kernels is the original.
    with torch.no_grad():
        originals = dict(model.named_modules())
        sizes = []
        for place, layer in enumerate(searchable.space.layers):
            conv, bank = originals[layer.name], searchable.kernel_predictor.kernels[place]
            kernel = bank.data.clone()
            pairs = zip(conv.kernel_size, bank.shape[2:])
            kernel[(..., *(window_of(n, largest) for n, largest in pairs))] = conv.weight
            bank.data = kernel
            sizes.append(conv.kernel_size if per_axis else max(conv.kernel_size))
        output = tensor_of(searchable.eval().forward_at(sizes, images))
        scale = expected.abs().max().item()
        torch.testing.assert_close(output, expected, atol=1e-5 * max(scale, 1), rtol=1e-5)
        # One mirrored kernel in the middle would have been seen.
        kernel = searchable.kernel_predictor.kernels[len(sizes) // 2]
        kernel.data = kernel.flip(tuple(range(2, kernel.dim())))
        output = tensor_of(searchable.forward_at(sizes, images))
        assert (output - expected).abs().max() > 1e-3 * scale

    # Two training steps; every searched layer's size has a gradient of the task.
    searchable.train()
    wanted = middle(searchable.cost, searchable.space)
    optimizer = torch.optim.SGD(searchable.parameter_groups(), lr=1e-3)
    for _ in range(2):
        output = tensor_of(searchable(images))
        loss = F.cross_entropy(output, torch.zeros_like(output[:, 0]).long())
        (slopes,) = torch.autograd.grad(loss, searchable.soft_sizes, retain_graph=True)
        assert slopes.isfinite().all()
        assert (slopes != 0).all(), [
            n for n, slope in zip(searchable.space.entry_names(), slopes.tolist()) if not slope
        ]
        optimizer.zero_grad()
        (loss + searchable.budget_loss(wanted)).backward()
        for layer, kernel in zip(searchable.layers, searchable.kernel_predictor.kernels):
            assert kernel.grad.isfinite().all(), layer
            assert kernel.grad.any(), layer
        optimizer.step()

    # The plan's cost is near the budget, and that of the network it makes.
    plan = searchable.plan(wanted)
    assert abs(plan.cost / wanted - 1) <= 0.02
    cnn = apply_plan(model, plan).eval()
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost
    warm = searchable.warm_start(plan).eval()
    with torch.no_grad():
        assert tensor_of(cnn(images)).shape == expected.shape
        learned = tensor_of(searchable.eval().forward_at(plan.values(), images))
        scale = learned.abs().max().item()
        torch.testing.assert_close(
            tensor_of(warm(images)), learned, atol=1e-5 * max(scale, 1), rtol=1e-5
        )

    # Of a depthwise network they are a small part; so for the searched kernels alone, too.
    alone = dataclasses.replace(searchable.cost, constant=0)
    wanted = middle(alone, searchable.space)
    plan = searchable.plan(Budget(wanted, lambda _: alone))
    assert abs(plan.budgets[0]["cost"] / wanted - 1) <= 0.02

    # So it is with multiply-accumulates, by PyTorch's own counter.
    counter = Macs(images)
    (bound,) = searchable.constraints(Budget(1, counter))
    wanted = middle(bound.cost, searchable.space)
    plan = searchable.plan(Budget(wanted, counter))
    count = macs(apply_plan(model, plan).eval(), images)
    assert bound.cost(list(plan.values())) == count
    assert abs(count / wanted - 1) <= 0.02


@pytest.mark.parametrize(
    ("make_model", "sentence"),
    [
        (
            lambda: models.VisionTransformer(
                image_size=32, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8
            ),
            "the VisionTransformer has no layer to search: of its 1 each is the model's first",
        ),
        (
            lambda: nn.Sequential(
                *(parametrizations.weight_norm(nn.Conv2d(3, 3, 3), dim=3) for _ in "ab")
            ),
            "of its 2 each is a ParametrizedConv2d, which has a parametrization",
        ),
    ],
)
def test_a_network_that_cannot_be_searched_says_why_in_a_sentence(make_model, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        SearchableCNN(make_model())
    assert "\n" not in str(caught.value)
