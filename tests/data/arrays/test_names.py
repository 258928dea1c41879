"""What the names of arrays in the field's files say."""

from __future__ import annotations

import pytest

from dsprh_tf.data.arrays.names import meaning

NAMES = {
    "image": ("image", ""), "Images": ("image", ""), "I": ("image", ""), "IAll": ("image", ""),
    "XAll": ("image", ""), "X": ("image", ""), "I_tr": ("image", "tr"), "I_te": ("image", "query"),
    "I_tr_CNN": ("image", "tr"), "XTrain": ("image", "train"), "XDatabase": ("image", "database"),
    "train_img": ("image", "train"), "img_train": ("image", "train"), "vgg19": ("image", ""),
    "trainimg": ("image", "train"), "image_features_clip": ("image", ""), "Image": ("image", ""),
    "images_tr": ("image", "tr"), "imgs_deep": ("image", ""), "test/image": ("image", "query"),
    "text": ("text", ""), "T": ("text", ""), "TAll": ("text", ""), "T_te_BoW": ("text", "query"),
    "Tag": ("text", ""), "tags": ("text", ""), "caption_emb": ("text", ""), "bow": ("text", ""),
    "flickr25k_bow_20015": ("text", ""), "mirflickr25k-tall/TAll": ("text", ""),
    "retrieval_txt": ("text", "database"), "text_db": ("text", "database"),
    "labels": ("labels", ""), "LAll": ("labels", ""), "L_tr": ("labels", "tr"),
    "databaseL": ("labels", "database"), "testL": ("labels", "query"), "gnd": ("labels", ""),
    "trImgCat": ("labels", "tr"), "train_imgs_labels": ("labels", "train"), "gt": ("labels", ""),
    "label_val": ("labels", "validation"), "query/L": ("labels", "query"),
    "Y": ("y", ""), "YAll": ("y", ""), "YTest": ("y", "query"),
    "image_ids": ("", ""), "label_names": ("", ""), "img_paths": ("", ""), "text_len": ("", ""),
    "image_text": ("", ""), "t_max": ("", ""), "l2": ("", ""), "seed": ("", ""),
    "texture": ("", ""), "latent": ("", ""), "": ("", ""), "123": ("", ""), "数据": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=repr)
def test_names(name, expected):
    role, part, _, _ = meaning(name)
    assert (role, part if role else "") == expected


def test_what_is_about_the_data_is_meant_but_not_read():
    assert meaning("image_ids").meant and not meaning("image_ids").role
    assert not meaning("seed").meant


def test_names_of_the_documentation_come_first():
    assert [meaning(name).rank for name in ("image", "image_all", "image_openai")] == [0, 1, 2]
