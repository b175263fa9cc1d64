"""Numbers of the paper that ``conf/experiment`` does not contain; fractions and counts, as the paper prints them."""

from __future__ import annotations

RECALL = ((232, 250), (237, 250), (235, 250), (250, 250), (182, 250))  # errors by class: correct, all
ACCURACY = 0.943
KNN_ACCURACY = 0.297
TRAINING = {"knn": "2 minutes", "cnn": "45 minutes"}  # table 7
TTA_GAIN = (0.003, 0.005)
MAPS = 12  # side of the last stage's feature maps, table 2
# Table 2, at width 64: shapes in and out, by our module names. The global average pool is not a module here.
LAYERS = (
    ("conv", "4×100×100", "64×100×100"),
    ("stages.0.0", "64×100×100", "128×50×50"),
    ("stages.0.1", "128×50×50", "128×50×50"),
    ("stages.1.0", "128×50×50", "256×25×25"),
    ("stages.1.1", "256×25×25", "256×25×25"),
    ("stages.2.0", "256×25×25", "512×12×12"),
    ("stages.2.1", "512×12×12", "512×12×12"),
    ("fc1", "512", "128"),
    ("fc2", "128", "5"),
)
# Table 3, by our keys; (code): from the paper's code.
SETTINGS = {
    "channels": "RGBA",
    "width": "64",
    "epochs": "100",
    "lr": "3e-4",
    "batch_size": "64",
    "dropout": "0.3",
    "augment.flip.p": "0.5",
    "augment.rotation.degrees": "10",
    "augment.rotation.fill_alpha": "mask (code)",
    "augment.cutmix.p": "0.5",
    "augment.cutmix.alpha": "1",
    "recipe.label_smoothing": "0.1",
    "recipe.weight_decay": "1e-4",
    "recipe.warmup": "0.1",
    "model.args.skips": "yes",
    "seed": "none set (code)",
}
