"""Trains, evaluates and exports a model of your own image and text features.

`features.npz` holds the arrays `image` [N, D_I] and `text` [N, D_T], features of N pairs by any
encoders, and `labels` [N, L], 0 or 1, which say what is relevant to what in the evaluation.
A tenth of the pairs are test queries.
"""

import dsprh_tf

run = dsprh_tf.Run(
    "runs/mine", method="dsprh_plus", dataset="features", data_dir="features.npz", bits=64
)
run.train()
print(run.evaluate())
run.export("savedmodels/mine")
