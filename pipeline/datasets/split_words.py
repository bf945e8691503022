"""Train, val and test: their numbers, and the words that mean them."""

from __future__ import annotations

from collections.abc import Iterable

from .words import GENERIC, nfc, words_of

SPLITS = ("train", "val", "test")
TRAIN = 0
VAL = 1
TEST = 2
UNSPLIT = -1
_SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "trn": TRAIN,
    "trainval": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "validate": VAL,
    "dev": VAL,
    "development": VAL,
    "eval": VAL,
    "test": TEST,
    "testing": TEST,
    "tst": TEST,
    "evaluation": TEST,
    "trainingsdaten": TRAIN,
    "validierung": VAL,
    "validierungsdaten": VAL,
    "testdaten": TEST,
    "entrenamiento": TRAIN,
    "validacion": VAL,
    "prueba": TEST,
    "entrainement": TRAIN,
    **dict.fromkeys(
        "trainset trainingset traindata trainingdata trainingsbilder trainingssatz trainingsset "
        "trainingsdatensatz entraînement apprentissage treino treinamento addestramento обучение "
        "обучающая 训练 训练集 訓練 訓練集 学習 훈련 학습".split(),
        TRAIN,
    ),
    **dict.fromkeys(
        "valset validset validationset valdata validationdata validierungsbilder validierungssatz "
        "validação validación validazione валидация 验证 验证集 驗證 検証 검증".split(),
        VAL,
    ),
    **dict.fromkeys(
        "testset testingset testdata testbilder testsatz testdatensatz holdout teste "
        "тест тестовая 测试 测试集 測試 測試集 テスト 테스트".split(),
        TEST,
    ),
}


def split_of(word: str) -> int | None:
    """Index into ``SPLITS`` that the word means (``Training`` → 0), None if it means none."""
    return _SPLIT_WORDS.get(nfc(word).strip().lower().replace("_", "").replace("-", ""))


def splits_of(words: Iterable[str]) -> dict[str, int | None]:
    """Give the split that each of several words means, see :func:`split_of`.

    ``eval`` is the test where another word is the val and none is the test: train, dev, eval.
    """
    found = {word: split_of(word) for word in words}
    late = [word for word in found if word.strip().lower() == "eval"]
    others = {split for word, split in found.items() if word not in late}
    if VAL in others and TEST not in others:
        found |= dict.fromkeys(late, TEST)
    return found


def split_in(name: str) -> tuple[int, str] | None:
    """Find the split that a longer name means: ``seg_train`` → (0, "seg"); None if it means none.

    The second part is what else the name says, without numbers and words such as ``set``: folders
    of which it is the same are splits of one set.
    """
    words = words_of(name)
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    if found == {TRAIN, VAL}:
        found = {TRAIN}
    if len(found) != 1:
        return None
    rest = [word for word in words if word not in _SPLIT_WORDS and word not in GENERIC]
    return found.pop(), " ".join(rest)


def split_said(name: str) -> int | None:
    """Give the split that a name is, or that a part of it means; None if it means none."""
    split = split_of(name)
    if split is None and (found := split_in(name)) is not None:
        split = found[0]
    return split
