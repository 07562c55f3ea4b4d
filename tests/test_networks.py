"""Networks of torchvision and timm: made by name, tried before they train, begun from weights, or trained in part."""

import contextlib
import gzip
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from scripts.estimate.one_run import footprint_of
from tests.helpers import SMALL, assert_same_run, build, rows, spawn, tar_of, train_here
from train import app
from train.config.compose import compose
from train.data import cifar
from train.data.kinds import open_data
from train.engine.loop import seed_dropout
from train.errors import UserError
from train.model import make_model, published_weights
from train.processes.world import World
from train.schedule import make_schedule
from train.weights import begin_from, initial_weights, read

# dropout and no BatchNorm, at 32 pixels: 0.7 million parameters
SQUEEZENET = ["model=torchvision", "model.arch=squeezenet1_1", "data.size=32"]
FEW = [*SMALL, "data.train_per_class=16", "batch.total=64", "batch.micro=16", "epochs=2", "optimizer.lr=0.1"]


FAMILIES = [
    ("resnet18", "null"), ("vit_b_16", "{image_size:64}"), ("convnext_tiny", "null"), ("vgg11_bn", "null"),
    ("mobilenet_v3_small", "null"), ("regnet_x_400mf", "null"), ("shufflenet_v2_x0_5", "null"),
]  # fmt: skip
MORE_FAMILIES = [
    ("alexnet", "null"), ("densenet121", "null"), ("efficientnet_b0", "null"), ("efficientnet_v2_s", "null"),
    ("googlenet", "{aux_logits:false}"), ("mnasnet0_5", "null"), ("mobilenet_v2", "null"), ("resnext50_32x4d", "null"),
    ("squeezenet1_1", "null"), ("swin_t", "null"), ("swin_v2_t", "null"), ("wide_resnet50_2", "null"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "options"), [*FAMILIES, *(pytest.param(*family, marks=pytest.mark.slow) for family in MORE_FAMILIES)]
)
def test_a_network_of_each_family_takes_a_lars_step_with_fake_tensors(arch, options):
    config = compose("model=torchvision", f"model.arch={arch}", f"model.options={options}", "data.size=64")
    net = footprint_of(config, 10, 1)
    assert net.optimizer >= net.gradients > 0 and net.gmacs > 0  # momentum, and what LARS keeps of layers


@pytest.mark.parametrize(("arch", "options"), [("vit_tiny_patch16_224", "{img_size:64}"), ("convnext_atto", "null")])
def test_a_network_of_timm_takes_a_lars_step_with_fake_tensors(arch, options):
    pytest.importorskip("timm")
    config = compose("model=timm", f"model.arch={arch}", f"model.options={options}", "data.size=64")
    assert footprint_of(config, 10, 1).gradients > 0


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        ("resnet51", 64, "did you mean resnet50"),
        ("vit_b_16", 64, "cannot be trained on images of 64 pixels"),
        ("alexnet", 32, "cannot be trained on images of 32 pixels"),
        ("googlenet", 224, "auxiliary outputs"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(arch, size, said):
    config = compose("model=torchvision", f"model.arch={arch}", f"data.size={size}")
    with pytest.raises(UserError, match=said) as refused:
        make_model(config.model, 10, [size])
    assert "\n" not in str(refused.value)


def test_trying_a_network_leaves_its_weights_and_statistics_as_they_were():
    torch.manual_seed(0)
    tried = make_model(compose("model=torchvision", "model.arch=resnet18").model, 4, [64])
    torch.manual_seed(0)
    expected = models.resnet18(num_classes=4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in tried.state_dict().items())


def test_a_network_with_dropout_stopped_and_resumed_ends_with_the_same_weights(tmp_path: Path):
    whole = train_here(tmp_path / "whole", *FEW, *SQUEEZENET)
    for stop in (["max_steps=1"], []):
        part = train_here(tmp_path / "part", *FEW, *SQUEEZENET, *stop)
    assert_same_run(whole, part)


def test_mnasnet_whose_weights_need_their_version_resumes_and_is_evaluated_and_loaded(tmp_path: Path, capsys):
    small = [*FEW, "model=torchvision", "model.arch=mnasnet0_5"]
    train_here(tmp_path, *small, "max_steps=1")
    run = train_here(tmp_path, *small)
    capsys.readouterr()
    app.evaluate_file(compose(*small, f"evaluate={run}/weights.pt"), World())
    assert "val_top1" in capsys.readouterr().out
    models.mnasnet0_5(num_classes=8).load_state_dict(torch.load(run / "weights.pt"))


def test_options_that_a_library_answers_with_any_error_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse(**_: object) -> None:
        raise KeyError("no such layer")

    monkeypatch.setattr(models, "get_model", lambda *_, **__: refuse())
    with pytest.raises(UserError, match="resnet18 cannot be made: 'no such layer'"):
        make_model(compose("model=torchvision", "model.arch=resnet18").model, 10)


def test_names_that_ddp_or_compile_put_before_weights_are_taken_off(tmp_path: Path):
    weights = models.resnet18(num_classes=8).state_dict()
    wrapped = {f"module._orig_mod.{name}": value for name, value in weights.items()} | {"n_averaged": torch.tensor(3)}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    assert read(tmp_path / "wrapped.pth").keys() == weights.keys()
    torch.save({1: torch.ones(1)}, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match="holds no weights"):
        read(tmp_path / "numbers.pth")


def _losses(rank: int, size: int, port: int, out: Path) -> None:
    world, data, plan, model, config = build(rank, size, port, *FEW, *SQUEEZENET, "optimizer.lr=0.01")
    step, loader = app.connect_step(config, plan, world, model), data.make_loader(world, config.seed)
    lr, losses = make_schedule(config.schedule, config.optimizer.lr, plan), []

    def seeded(batches, number):
        for i in range(plan.accumulation):
            batch = next(batches)
            seed_dropout(config.seed, number, rank * plan.accumulation + i)
            yield batch

    batches = loader.training_batches(plan, 0, 0)
    losses = [step(seeded(batches, number), lr(number)).item() for number in range(plan.steps_per_epoch)]
    if rank == 0:
        out.write_text(json.dumps(losses))
    world.leave()


def test_dropout_is_the_same_on_two_processes_as_on_one(tmp_path: Path):
    _losses(0, 1, 0, tmp_path / "one")
    spawn(_losses, 2, tmp_path / "two")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    assert len(one) == 2 and one == pytest.approx(two, rel=1e-4)


@pytest.mark.parametrize("arch", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision_begin_from_its_own_file_with_another_head(tmp_path: Path, arch: str, capsys):
    torch.manual_seed(1)
    theirs = models.get_model(arch, num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "a=b.pth")
    given = ["model=torchvision", f"model.arch={arch}", "data.size=32", f"init={tmp_path}/a=b.pth"]
    run = train_here(tmp_path, *FEW, *given, "max_steps=1", "optimizer.lr=0")
    said = "".join(capsys.readouterr())
    assert "randomly initialised (1000 classes there, 8 classes here)" in said
    state = torch.load(next((run / "checkpoints").glob("step-*.pt")))["model"]
    first = next(name for name, _ in theirs.named_parameters())
    assert torch.equal(state[first], theirs.state_dict()[first])
    with pytest.raises(UserError, match="another configuration"):
        train_here(tmp_path, *FEW, *given[:-1])
    trained = train_here(tmp_path / "trained", *FEW, *given)
    ended = torch.load(trained / "weights.pt")
    assert len(rows(trained)) == 2 and all(bool(value.isfinite().all()) for value in ended.values())
    assert not torch.equal(ended[first], theirs.state_dict()[first])


def test_a_backbone_without_a_head_begins_a_linear_probe(tmp_path: Path):
    torch.manual_seed(1)
    backbone = {k: v for k, v in models.resnet18().state_dict().items() if not k.startswith("fc.")}
    ours = make_model(compose("model=torchvision", "model.arch=resnet18").model, 8)
    drawn = ours.fc.weight.clone()
    said = begin_from(ours, backbone, 8, "backbone.pt")
    assert said.endswith("except fc.weight, fc.bias: randomly initialised (no head there, 8 classes here)")
    assert torch.equal(ours.fc.weight, drawn) and torch.equal(ours.conv1.weight, backbone["conv1.weight"])
    del backbone["layer1.0.conv1.weight"]
    with pytest.raises(UserError, match="Missing key.*layer1.0.conv1.weight.*model.options and data.size"):
        begin_from(ours, backbone, 8, "backbone.pt")


@pytest.mark.parametrize("model", ["torchvision", "timm"])
@pytest.mark.parametrize("option", ["pretrained:true", "weights:DEFAULT"])
def test_weights_are_chosen_by_init_alone(model, option):
    config = compose(f"model={model}", "model.arch=resnet18", f"model.options={{{option}}}")
    with pytest.raises(UserError, match="are chosen by init=DEFAULT"):
        make_model(config.model, 8)


def test_what_timm_cannot_give_is_said_in_one_line(monkeypatch):
    config = compose("model=timm", "model.arch=resnet18").model
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "timm", None)
        with pytest.raises(UserError, match="model=timm needs timm: pip install timm"):
            make_model(config, 8)
    timm = pytest.importorskip("timm")

    def refused(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", refused)
    with pytest.raises(UserError, match="cannot be downloaded from .*no network.*give init=FILE") as error:
        published_weights(config, "DEFAULT")
    assert "\n" not in str(error.value)


def test_only_the_named_layer_is_trained_and_statistics_of_the_others_stay(tmp_path: Path):
    run = train_here(tmp_path, *FEW, "train_only=fc", "ema=0.5")
    torch.manual_seed(0)
    drawn = make_model(compose(*FEW).model, 8).state_dict()
    ended = torch.load(run / "weights.pt")
    assert {name for name, value in ended.items() if not torch.equal(value, drawn[name])} == {"fc.weight", "fc.bias"}
    assert len(rows(run)) == 2
    with pytest.raises(UserError, match="train_only was fc, now None"):
        train_here(tmp_path, *FEW, "ema=0.5")


def test_checkpoints_of_timms_and_torchvisions_scripts_are_read(tmp_path: Path):
    weights = {"conv.weight": torch.ones(2)}
    # timm/utils/checkpoint_saver.py; torchvision's references/classification/train.py, under DDP
    timm = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": weights,
        "optimizer": {},
        "version": 2,
        "args": Namespace(lr=1),
    }
    torchvision = {"model": {f"module.{name}": w for name, w in weights.items()}, "epoch": 3, "args": Namespace(lr=1)}
    for i, state in enumerate((timm, torchvision)):
        torch.save(state, tmp_path / f"{i}.pth.tar")
        assert read(tmp_path / f"{i}.pth.tar").keys() == weights.keys()


def test_what_timms_saver_writes_and_safetensors_begin_a_run(tmp_path: Path):
    timm_utils = pytest.importorskip("timm.utils")
    safetensors = pytest.importorskip("safetensors.torch")
    config = compose("model=timm", "model.arch=resnet18").model
    torch.manual_seed(0)
    theirs = make_model(config, 8)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    saver = timm_utils.CheckpointSaver(
        theirs, optimizer, args=Namespace(model="resnet18"), checkpoint_dir=str(tmp_path)
    )
    saver.save_checkpoint(0, metric=1.0)
    safetensors.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    for name in ("checkpoint-0.pth.tar", "model.safetensors"):
        ours = make_model(config, 8)
        assert begin_from(ours, read(tmp_path / name), 8, name) == f"started from {name}"
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    for name, said in (("cut", "is damaged or not a safetensors file"), ("none", "No such file or directory")):
        with pytest.raises(UserError, match=said) as refused:
            read(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(refused.value)


def test_a_network_that_cannot_be_made_leaves_no_folder(tmp_path: Path):
    for overrides in (["model=torchvision", "model.arch=resnt50"], ["train_only=head"]):
        with pytest.raises(UserError):
            train_here(tmp_path / "runs", *FEW, *overrides)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train_only=head"], "train_only=head is not a layer of this network: choose one of conv1, bn1"),
        (["init=DEFAULT"], "there are no published weights of resnet8: give a file by init=FILE"),
        (["init=/nowhere.pt"], "init=/nowhere.pt: there is no such file; published weights are DEFAULT"),
        (["init=imagenet1k_v2"], "init=imagenet1k_v2: there is no such file; published weights are DEFAULT"),
    ],
)
def test_what_cannot_be_begun_is_said_in_one_line(tmp_path: Path, overrides, said):
    with pytest.raises(UserError, match=said):
        train_here(tmp_path, *FEW, *overrides)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path):
    torch.save(models.resnet18().state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit this network with 8 classes") as refused:
        train_here(tmp_path, *FEW, f"init={tmp_path}/other.pth")
    assert "\n" not in str(refused.value)


def test_weights_that_cannot_be_downloaded_are_said_with_their_address(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    for name in ("IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"):
        with pytest.raises(UserError, match="from https://download.pytorch.org/models/resnet50-.*give init=FILE"):
            initial_weights(name, compose("model=resnet50").model)
    with pytest.raises(UserError, match=r"init=IMAGENET1K_V9: torchvision resnet18 has init=IMAGENET1K_V1\|DEFAULT"):
        published_weights(compose("model=torchvision", "model.arch=resnet18").model, "IMAGENET1K_V9")


Files = dict[str, bytes]


def cifar10(folder: Path, cut: int = 0, harm: Callable[[Files], object] = lambda files: None) -> list[bytes]:
    """An archive in the official format of 50 training and 10 test images; its records."""
    generator = np.random.default_rng(0)
    records = [bytes([i % 10]) + generator.integers(0, 256, 3072, dtype=np.uint8).tobytes() for i in range(60)]
    files = {f"cifar-10-batches-bin/data_batch_{i + 1}.bin": b"".join(records[10 * i : 10 * i + 10]) for i in range(5)}
    files["cifar-10-batches-bin/test_batch.bin"] = b"".join(records[50:])
    files["cifar-10-batches-bin/batches.meta.txt"] = b"\n".join(f"class{i}".encode() for i in range(10)) + b"\n"
    harm(files)
    content = gzip.compress(tar_of(files))
    (folder / "cifar-10-binary.tar.gz").write_bytes(content[: len(content) - cut])
    return records


def test_cifar100_has_the_finer_of_its_two_labels(tmp_path: Path):
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, 3072, dtype=np.uint8).tobytes() for _ in range(30)]
    records = [bytes([i % 20, 99 - i]) + pixels[i] for i in range(30)]  # the label of twenty, then that of a hundred
    names = {"coarse": range(20), "fine": range(100)}
    files = {f"cifar-100-binary/{kind}_label_names.txt": "".join(f"{kind}{i}\n" for i in numbers).encode()
             for kind, numbers in names.items()}  # fmt: skip
    files |= {"cifar-100-binary/train.bin": b"".join(records[:20]), "cifar-100-binary/test.bin": b"".join(records[20:])}
    (tmp_path / "cifar-100-binary.tar.gz").write_bytes(gzip.compress(tar_of(files)))
    data = open_data(compose("recipe=he", "data=cifar100", f"data.root={tmp_path}").data)
    assert (data.train_images, data.val_images, data.class_names[79]) == (20, 10, "fine79")
    _, (images, labels), _ = cifar.read(tmp_path / "cifar-100-binary.tar.gz", cifar.ARCHIVES["cifar100"])
    assert labels.tolist() == [99 - i for i in range(20)]
    assert images[7].transpose(2, 0, 1).tobytes() == pixels[7]


def test_cifar_is_read_from_its_archive_and_trained_with_the_recipe(tmp_path: Path):
    records = cifar10(tmp_path)
    given = ["recipe=he", "data=cifar10", f"data.root={tmp_path}", "batch.total=20", "batch.micro=10", "epochs=1"]
    config = compose(*given)
    data = open_data(config.data)
    assert (data.train_images, data.val_images, data.class_names[3]) == (50, 10, "class3") and "NOT" in data.remark
    _, train, test = cifar.read(tmp_path / "cifar-10-binary.tar.gz", cifar.ARCHIVES["cifar10"])
    assert train[1].tolist() == [i % 10 for i in range(50)] and test[0].shape == (10, 32, 32, 3)
    assert bytes(train[0][7].transpose(2, 0, 1).tobytes()) == records[7][1:]
    with contextlib.chdir(tmp_path) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        assert len(rows(train_here(tmp_path / "runs", *given, "precision=fp32"))) == 1


def test_a_damaged_cifar_archive_is_refused_in_one_line(tmp_path: Path):
    given = compose("recipe=he", "data=cifar10", f"data.root={tmp_path}").data
    with pytest.raises(UserError, match="there is no .*cifar-10-binary.tar.gz: give the folder that holds it"):
        open_data(given)
    cifar10(tmp_path, cut=100)
    with pytest.raises(UserError, match="is damaged or cut short"):
        open_data(given)
    given.root = f"{tmp_path}/cifar-10-binary.tar.gz"
    with pytest.raises(UserError, match="give the folder that holds it"):
        open_data(given)
    with pytest.raises(UserError, match="give data=cifar10 and the folder that holds it"):
        open_data(compose(f"data.root={tmp_path}", "batch=256").data)


@pytest.mark.parametrize(
    ("member", "change", "said"),
    [
        ("data_batch_2.bin", None, "has no data_batch_2.bin: download it again"),
        ("batches.meta.txt", None, "has no batches.meta.txt"),
        ("data_batch_5.bin", lambda content: content[:-7], "data_batch_1.bin is not a whole number of images"),
        ("test_batch.bin", lambda content: bytes([10]) + content[1:], "test_batch.bin .*labels without a class"),
    ],
)
def test_a_cifar_archive_that_is_not_whole_is_refused_in_one_line(tmp_path: Path, member, change, said):
    def harm(files: Files) -> None:
        name = f"cifar-10-batches-bin/{member}"
        content = files.pop(name)
        if change:
            files[name] = change(content)

    cifar10(tmp_path, harm=harm)
    with pytest.raises(UserError, match=said) as refused:
        open_data(compose("recipe=he", "data=cifar10", f"data.root={tmp_path}").data)
    assert "\n" not in str(refused.value)
