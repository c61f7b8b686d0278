"""nbgrader's settings, for the lecturer: `nbgrader generate_assignment 02_rotation_mathematics` and so on from here.

tools/make_exercises.py reads them too, so that exercises/ comes out byte for byte as nbgrader itself would write it.
"""

from pathlib import Path

c = get_config()  # noqa: F821 - nbgrader provides it

c.CourseDirectory.course_id = "sslcourse"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.ClearSolutions.code_stub = {
    "python": (
        "# Write your answer here, in place of the next line; then run this cell and the check below.\n"
        'raise NotImplementedError("Not solved yet: write your answer in place of this line, then run this cell and the check.")'
    )
}
c.ClearSolutions.text_stub = "*Write your answer here.*"
c.Execute.timeout = 300  # seconds for each cell when autograding; nbgrader's own 30 are few for an old laptop
