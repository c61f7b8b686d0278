"""Control from pixels: a hand that fetches what a picture asks for, and what self-supervision gives the one that learns it.

    import gymnasium, sslcourse.control
    env = gymnasium.make("sslcourse/Fetch-v0")

Needs Gymnasium and stable-baselines3, which the extra `rl` installs; nothing else of the package does.
"""

from importlib.util import find_spec

from sslcourse.errors import CourseError

if missing := [name for name in ("gymnasium", "stable_baselines3") if find_spec(name) is None]:
    raise CourseError(
        f"sslcourse.control needs {' and '.join(missing)}, which the extra rl installs: run "
        '`python -m pip install --editable ".[rl]"` in the folder of the course.'
    )

import gymnasium

gymnasium.register("sslcourse/Fetch-v0", entry_point="sslcourse.control.environment:Fetch")
