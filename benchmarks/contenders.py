"""What the peers do, each as its own documentation shows it; run by ``benchmarks.peers``.

    python -m benchmarks.contenders NAME TASK.json

TASK names the images, their labels, and a file with the network's weights, the same for all. Each
contender goes from image files to a linear classifier (fastai: a fine-tuned network) and its
accuracy on the test images, and prints one line of JSON. Nothing here imports this project.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ARCH = "tf_efficientnet_lite0"
WORKERS = 2
C_GRID = np.logspace(-4, 2, 7)
MEAN = STD = (0.5, 0.5, 0.5)


def _network(weights: str, **settings: Any) -> Any:
    import timm

    local = {"file": weights, "hf_hub_id": None, "url": None}
    return timm.create_model(ARCH, pretrained=True, pretrained_cfg_overlay=local, **settings)


def _searched(estimator: Any, grid: dict[str, Any], train: Any, test: Any) -> float:
    """Search by 5-fold cross-validation on all cores; give the accuracy on test."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    search = GridSearchCV(make_pipeline(StandardScaler(), estimator), grid, cv=5, n_jobs=WORKERS)
    return float(search.fit(*train).score(*test))


def tutorial(task: dict[str, Any], said: dict[str, float]) -> float:
    """PIL transforms of torchvision in a DataLoader, eager PyTorch, GridSearchCV over LinearSVC."""
    import torch
    from PIL import Image
    from sklearn.svm import LinearSVC
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    network = _network(task["weights"], num_classes=0).eval()
    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    class Images(Dataset):  # type: ignore[type-arg]
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, at: int) -> Any:
            return transform(Image.open(self.paths[at]).convert("RGB"))

    def codes(split: str) -> Any:
        loader = DataLoader(Images(task[split]["paths"]), batch_size=32, num_workers=WORKERS)
        with torch.no_grad():
            return torch.cat([network(batch) for batch in loader]).numpy()

    train, test = _timed(said, codes, task)
    return _searched(LinearSVC(), {"linearsvc__C": C_GRID}, train, test)


def timm_loader(task: dict[str, Any], said: dict[str, float]) -> float:
    """Load as timm's inference.py does (create_loader), then LogisticRegressionCV."""
    import torch
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from timm.data import ImageDataset, create_loader
    from timm.data.readers.reader import Reader

    network = _network(task["weights"], num_classes=0).eval()

    class Listed(Reader):
        def __init__(self, paths: list[str]) -> None:
            super().__init__()
            self.paths = paths

        def __getitem__(self, at: int) -> Any:
            return Path(self.paths[at]).open("rb"), 0

        def __len__(self) -> int:
            return len(self.paths)

        def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
            return self.paths[index]

    def codes(split: str) -> Any:
        loader = create_loader(
            ImageDataset("", reader=Listed(task[split]["paths"])),
            input_size=(3, 224, 224), batch_size=32, use_prefetcher=False,
            interpolation="bicubic", mean=MEAN, std=STD, crop_pct=0.875, num_workers=WORKERS,
            device=torch.device("cpu"),
        )  # fmt: skip
        with torch.inference_mode():
            return torch.cat([network(batch) for batch, _ in loader]).numpy()

    train, test = _timed(said, codes, task)
    head = LogisticRegressionCV(
        Cs=C_GRID, cv=5, n_jobs=WORKERS, max_iter=1000, scoring="accuracy", l1_ratios=(0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    return float(make_pipeline(StandardScaler(), head).fit(*train).score(*test))


def embetter(task: dict[str, Any], said: dict[str, float]) -> float:
    """ImageLoader, TimmEncoder and LogisticRegression, as in embetter's README."""
    import timm
    from sklearn.linear_model import LogisticRegression

    local = {"file": task["weights"], "hf_hub_id": None, "url": None}
    # The weights are a file here; embetter itself passes only a name.
    timm.create_model = functools.partial(timm.create_model, pretrained_cfg_overlay=local)
    from embetter.vision import ImageLoader, TimmEncoder

    loader, encoder = ImageLoader(), TimmEncoder(ARCH)

    def codes(split: str) -> Any:
        return encoder.transform(loader.transform(task[split]["paths"]))

    train, test = _timed(said, codes, task)
    return float(LogisticRegression(max_iter=1000).fit(*train).score(*test))


def fastai(task: dict[str, Any], said: dict[str, float]) -> float:
    """Fine-tune as fastai's first lesson: ``vision_learner(...).fine_tune(1)``."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        RandomSplitter,
        Resize,
        accuracy,
        aug_transforms,
        vision_learner,
    )  # fmt: skip

    labels = dict(zip(task["train"]["paths"], task["train"]["labels"], strict=True))
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock), splitter=RandomSplitter(seed=0),
        get_y=lambda path: str(labels[str(path)]), item_tfms=Resize(224),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    loaders = block.dataloaders([Path(one) for one in labels], bs=64, num_workers=WORKERS)
    local = {"file": task["weights"], "hf_hub_id": None, "url": None}
    learner = vision_learner(
        loaders, ARCH, metrics=accuracy, normalize=False, pretrained_cfg_overlay=local
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1)
        test = loaders.test_dl([Path(one) for one in task["test"]["paths"]])
        scores, _ = learner.get_preds(dl=test)
    called = np.array([int(loaders.vocab[k]) for k in scores.argmax(1).tolist()])
    return float((called == np.array(task["test"]["labels"])).mean())


def search_svm(task: dict[str, Any], said: dict[str, float]) -> float:
    """GridSearchCV over LinearSVC, on codes that this project cached."""
    from sklearn.svm import LinearSVC

    held = np.load(task["codes"])
    train, test = ((held[f"{one}_codes"], held[f"{one}_labels"]) for one in ("train", "test"))
    return _searched(LinearSVC(), {"linearsvc__C": C_GRID}, train, test)


def _timed(said: dict[str, float], codes: Any, task: dict[str, Any]) -> list[tuple[Any, Any]]:
    began = time.perf_counter()
    found = [(codes(split), np.array(task[split]["labels"])) for split in ("train", "test")]
    n = sum(len(labels) for _, labels in found)
    said["codes_per_s"] = n / (time.perf_counter() - began)
    return found


CONTENDERS = {
    "tutorial": tutorial,
    "timm": timm_loader,
    "embetter": embetter,
    "fastai": fastai,
    "search": search_svm,
}


def main() -> None:
    """Run one contender and print what it reached."""
    name, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    said: dict[str, float] = {}
    accuracy = CONTENDERS[name](task, said)
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({**said, "accuracy": accuracy, "peak_mb": peak / 1024}))


if __name__ == "__main__":
    main()
