"""From a backbone and a few labels to a classifier that can be kept, trusted and used.

model         backbone, head, class names, size, stage and temperature, in one file
folds         every labelled picture judged by a model that hadn't seen it, with choices made inside the folds
fitting       a classifier from a backbone and labelled pictures, and how good such classifiers are, by folds
calibration   probabilities that mean what they say: temperature scaling, expected calibration error
measures      confusion, precision and recall of each class, with intervals that know the number of pictures
given         labels of the pictures that a model is asked about, and what it got right
prediction    a class for every picture of a folder, as a table that grows while it is written, or its features
featurefile   features of many pictures in a file, as NumPy's array with a table, or as a Parquet table
deployment    the same as one file for programs without this course: ONNX, torch.export
pages         pictures with what was said of them, as one HTML page
"""

from sslcourse.classify.featurefile import read as read_features
from sslcourse.classify.fitting import Fitted, fit, label_efficiency
from sslcourse.classify.model import Model, load
from sslcourse.classify.prediction import embed, predict

__all__ = ["Fitted", "Model", "embed", "fit", "label_efficiency", "load", "predict", "read_features"]
