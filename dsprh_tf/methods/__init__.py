"""The hashing methods, one per file, and the classic baselines."""

from dsprh_tf.methods.base import Method
from dsprh_tf.methods.djsrh import DJSRH
from dsprh_tf.methods.dsah import DSAH
from dsprh_tf.methods.dsprh import DSPRH
from dsprh_tf.methods.dsprh_plus import DSPRHPlus
from dsprh_tf.methods.hsidhn import HSIDHN
from dsprh_tf.methods.sdeh import SDEH

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (DJSRH, DSAH, DSPRH, DSPRHPlus, HSIDHN, SDEH)
}
"""The methods by name, in the order of the tables. A new method is a file, named here."""

PAPER = DSPRH.name
"""The method whose parts the paper's ablations take away; the default on published data sets."""

BEST = DSPRHPlus.name
"""The default on your own data."""
