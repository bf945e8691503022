"""The words that folders, columns and splits are usually called by.

Evidence from names alone; what is decided from them is in :mod:`.layout` and :mod:`.tables`.
"""

from __future__ import annotations

import re
import unicodedata


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Folders that wrap images and say nothing about them.
GENERIC = _set(
    "archive classes data dataset datasets dir files folder full image images img imgs input jpeg "
    "jpegimages jpg original photo photos pic pics picture pictures png raw rgb set split splits"
)
# A split of a set into volumes, for download or for the file system.
PARTS = _set("archive batch chunk disk download image images img imgs part parts shard tar volume")
# Folders that say nothing of what their images show: not names of classes.
NO_CLASS = _set(
    "archive data dataset datasets dir files folder image images img imgs input jpegimages pics "
    "pictures"
)
# Several versions of the same pictures.
VARIANTS = _set(
    "aug augmented bw clahe color colored colour coloured crop cropped cropping denoised edges "
    "enhanced equalized gray grayscale grey greyscale high hr low lr masked normalised normalized "
    "original preprocessed processed raw resized rgb segmented small thumbnail thumbnails "
    "unsegmented"
)
ANNOTATIONS = _set(
    "annotation annotations bbox bboxes gt groundtruth json jsons label labels mask masks "
    "segmentation segmentations trimap trimaps xml xmls"
)
THUMBNAILS = _set("miniatures preview previews thumb thumbnail thumbnails thumbs")
UNLABELLED = _set(
    "inference pred predict prediction submission unlabeled unlabelled unsup unsupervised"
)
# What training tools leave next to the data; passed over where it holds no image directly.
OUTPUTS = _set(
    "cache checkpoints lightning_logs logs mlruns models output outputs results runs tb_logs "
    "tensorboard wandb weights"
)
# Folders of one thing each.
THINGS = _set(
    "animal camera case cell clip film id individual lesion module mouse panel part participant "
    "patient person plant plate product rat room scene sequence series session site slide "
    "specimen station subject tree video visit volunteer"
)
# Columns, the most telling first.
PATHS = (
    "path filepath file_path image_path img_path imagepath relative_im_path filename file_name "
    "fname file file_list image_file image image_name img img_name image_index name image_id "
    "img_id imageid id uuid photo picture url image_url dateiname "
    "datei bild bilddatei archivo imagen fichier"
).split()
LABELS = (
    "label class category target species breed dx diagnosis y class_name label_name class_label "
    "labels classes category_name image_label finding_labels finding finding_label disease "
    "choice variety ground_truth groundtruth gt class_id classid label_id category_id "
    "klasse kategorie etikett clase categoria etiqueta classe categorie"
).split()
SPLIT_COLUMNS = "split set subset phase partition fold usage data_split dataset_split".split()


def nfc(text: str) -> str:
    """Give the composed form of a name (macOS writes decomposed ones)."""
    return unicodedata.normalize("NFC", text)


def key_of(name: str) -> str:
    """Give a column's name in lower case with underscores: ``Image Index`` → ``image_index``."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", nfc(name).strip())
    return re.sub(r"[^\w]+|_+", "_", name.casefold()).strip("_")


def words_of(name: str) -> list[str]:
    """Split a name into its words: ``ISIC2018_TrainingInput`` → isic, training, input."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", name.casefold())


def annotates(name: str) -> bool:
    """Tell whether a folder's name says that it holds annotations or masks: ``ground_truth``."""
    words = words_of(name)
    return bool(set(words) & ANNOTATIONS) or "".join(words) in ANNOTATIONS


def is_version(name: str) -> bool:
    """Tell whether a name is a magnification or a size: ``40X``, ``224x224``, ``256px``."""
    return bool(re.fullmatch(r"(?i)\d+ ?(x|px|dpi|mpp|um)|\d+ ?x ?\d+|(res|size|x)[ _-]?\d+", name))


def is_numbered(name: str) -> bool:
    """Tell whether a name is mostly a number: ``p01``, ``2020-05-01``, ``patient 7``."""
    digits = sum(char.isdigit() for char in name)
    return digits > 0 and (digits >= 2 or len(words_of(name)) <= 1)
