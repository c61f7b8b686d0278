"""From a backbone and a few labels to a classifier that can be kept, trusted and used.

model         backbone, head, class names, size, stage and temperature, in one file
fitting       a classifier from a backbone and labelled pictures, with choices made inside folds
calibration   probabilities that mean what they say: temperature scaling, expected calibration error
measures      confusion, precision and recall of each class, with intervals that know the number of pictures
prediction    a class for every picture of a folder, as a table that grows while it is written
deployment    the same as one file for programs without this course: ONNX, torch.export
pages         pictures with what was said of them, as one HTML page
"""

from sslcourse.classify.fitting import Fitted, fit
from sslcourse.classify.model import Model, load
from sslcourse.classify.prediction import embed, predict

__all__ = ["Fitted", "Model", "embed", "fit", "load", "predict"]
