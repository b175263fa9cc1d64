"""The paper's own figures that are not declared with an experiment: fractions and counts, as it prints them."""

from __future__ import annotations

RECALL = ((232, 250), (237, 250), (235, 250), (250, 250), (182, 250))  # its text on errors by class: right, all
ACCURACY = 0.943
KNN_ACCURACY = 0.297
TRAINING = {"knn": "2 minutes", "cnn": "45 minutes"}  # its table 7
TTA_GAIN = (0.003, 0.005)
PARAMETERS = 11_087_749  # of the network as built: width 64, 4 channels, 5 classes
MAPS = 12  # side of the last stage's maps in its table 2
# Its table 2, at width 64: the input and output shape of each layer.
LAYERS = (
    ("stem conv, BN, ReLU", "4×100×100", "64×100×100"),
    ("stage 1 block 1", "64×100×100", "128×50×50"),
    ("stage 1 block 2", "128×50×50", "128×50×50"),
    ("stage 2 block 1", "128×50×50", "256×25×25"),
    ("stage 2 block 2", "256×25×25", "256×25×25"),
    ("stage 3 block 1", "256×25×25", "512×12×12"),
    ("stage 3 block 2", "512×12×12", "512×12×12"),
    ("global average pool, flatten", "512×12×12", "512"),
    ("FC1, ReLU, dropout 0.3", "512", "128"),
    ("FC2", "128", "5"),
)
# Its table 3, by our keys.
SETTINGS = {
    "channels": "RGBA",
    "width": "64",
    "epochs": "100",
    "lr": "3e-4",
    "batch_size": "64",
    "dropout": "0.3",
    "recipe.flip": "0.5",
    "recipe.rotation": "10",
    "recipe.alpha_fill": "mask (code)",
    "recipe.cutmix": "0.5",
    "recipe.cutmix_alpha": "1",
    "recipe.label_smoothing": "0.1",
    "recipe.weight_decay": "1e-4",
    "recipe.warmup": "0.1",
    "recipe.skips": "yes",
    "seed": "none set (code)",
}
