"""Submissions that attack the grader: what stands in the cell of the answer, and the points that it gets.

The assignment is that of tiny_course.py: `double` (2 points for values, 1 for inputs), then 3 points for `quadruple`,
which every attacker answers rightly. An attack that only breaks itself loses its own question. One that ends its own
process loses what comes after it. One that tries to cheat or to destroy gets what its answer is worth without that.
"""

RIGHT = "def double(x):\n    return x + x\n"
WRONG = "def double(x):\n    return x * x\n"
NOTHING = "def double(x):\n    return None\n"

# what a search may find: the tests, the answers of others, grades, and where the grader keeps them
LOOK = """
import os, sys
found = []
for folder, folders, names in os.walk(ROOT):
    skipped = ("/proc", "/dev", "/usr", sys.prefix, sys.base_prefix)
    folders[:] = [f for f in folders if os.path.join(folder, f) not in skipped]
    for name in names:
        try:
            text = open(os.path.join(folder, name), errors="ignore").read(5_000_000)
        except OSError:
            continue
        if WANTED in text:
            found.append(os.path.join(folder, name))
"""
IF_FOUND = "def double(x):\n    return x + x if found else None\n"

ATTACKS = {
    "loops for ever": ("while True:\n    pass\n" + RIGHT, 3),
    "loops for ever in the function": ("def double(x):\n    while True:\n        pass\n", 3),
    "ignores the clock": (
        "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nwhile True:\n    pass\n",
        0,
    ),
    "sleeps": ("import time\ntime.sleep(10**6)\n" + RIGHT, 0),
    "fills the memory": ("hoard = []\nwhile True:\n    hoard.append(bytearray(1 << 28))\n" + RIGHT, 3),
    "fills the scratch space": (
        "data = bytes(1 << 20)\nfor n in range(10**6):\n    open(f'/dev/shm/{n}', 'wb').write(data)\n"
        + RIGHT,
        3,
    ),
    "writes one huge file": (
        "file = open('huge', 'wb')\nwhile True:\n    file.write(bytes(1 << 20))\n" + RIGHT,
        3,
    ),
    "forks for ever": ("import os\nwhile True:\n    os.fork()\n" + RIGHT, 3),
    "starts a program": ("import subprocess\nsubprocess.run(['true'])\n" + RIGHT, 3),
    "starts threads for ever": (
        "import threading, time\nwhile True:\n"
        "    threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()\n",
        3,
    ),
    "ends the process": ("import os\nos._exit(0)\n", 0),
    "ends it politely": ("import sys\nsys.exit()\n", 3),
    "kills everything": (
        "import os, signal\nfor process in (1, -1):\n    try:\n        os.kill(process, signal.SIGKILL)\n"
        "    except ProcessLookupError:\n        pass\n" + RIGHT,
        6,
    ),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", 0),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", 0),
    "deletes what it can": (
        RIGHT
        + "import os, shutil\nfor name in os.listdir('/'):\n    shutil.rmtree('/' + name, ignore_errors=True)\n",
        6,
    ),
    "deletes the course": ("import shutil\nshutil.rmtree(COURSE, ignore_errors=True)\n" + RIGHT, 6),
    "overwrites the gradebook": (
        "import os, sqlite3\nos.makedirs(COURSE, exist_ok=True)\n"
        "sqlite3.connect(COURSE + '/gradebook.db').execute('update grade set auto_score = 99')\n" + RIGHT,
        3,
    ),
    "looks for the tests": (LOOK.replace("WANTED", "'hidden_' 'sample'") + IF_FOUND, 3),
    "looks for other submissions": (LOOK.replace("WANTED", "'of the neigh' 'bor'") + IF_FOUND, 3),
    "looks for the gradebook": (LOOK.replace("WANTED", "'submitted' '_assignment'") + IF_FOUND, 3),
    "reads the parent's environment": (
        "found = any('SEED' in open(f'/proc/{p}/environ').read() for p in __import__('os').listdir('/proc') "
        "if p.isdigit())\n" + IF_FOUND,
        3,
    ),
    "looks for the tests in memory": (
        "def double(x):\n    import gc\n"
        "    names = [f for f in gc.get_objects() if getattr(f, '__name__', '') == 'hidden_double']\n"
        "    return names[0](x) if names else None\n",
        3,
    ),
    "waits for the right answer": (
        "hidden_double = hidden_question = grade_double = None\n"
        "def double(x):\n    return hidden_double(x) if hidden_double else None\n",
        3,
    ),
    "patches numpy": (
        "for name in ('allclose', 'array_equal', 'isclose', 'shape'):\n    setattr(np, name, lambda *a, **k: True)\n"
        + WRONG,
        3,
    ),
    "patches the checks": (
        "import minitf.checks.core, minitf.checks.grade\n"
        "for module in (minitf.checks.core, minitf.checks.grade):\n"
        "    for name in dir(module):\n"
        "        if callable(getattr(module, name)) and not name.startswith('__'):\n"
        "            setattr(module, name, lambda *a, **k: None)\n" + WRONG,
        3,
    ),
    "patches the language": (
        "import builtins\nclass Calm(Exception):\n    pass\n"
        "builtins.AssertionError = builtins.Exception = Calm\n" + WRONG,
        3,
    ),
    "patches IPython": (
        "shell = get_ipython()\n"
        "shell.showtraceback = shell.run_cell = shell.run_code = lambda *a, **k: None\n" + WRONG,
        0,
    ),
    "returns what equals everything": (
        "class Yes(np.ndarray):\n    def __eq__(self, other): return True\n    def all(self, *a): return True\n"
        "def double(x):\n    return np.zeros(x.shape).view(Yes)\n",
        3,
    ),
    "returns another kind of thing": ("def double(x):\n    return lambda *a: x + x\n", 3),
    "returns too much": ("def double(x):\n    return np.zeros(10**7)\n", 0),
    "writes to the grader's socket": (
        "import os\nfor fd in range(3, 40):\n"
        '    try:\n        os.write(fd, b\'{"outputs": [], "error": null, "values": 1}\\n\' * 20)\n'
        "    except OSError:\n        pass\n" + WRONG,
        0,
    ),
    "sends a deep answer": (
        "def double(x):\n    import os\n    for fd in range(3, 40):\n"
        "        try:\n            os.write(fd, b'[' * 100_000 + b'\\n')\n"
        "        except OSError:\n            pass\n",
        0,
    ),
    "goes to the network": (
        "import socket\nfound = True\ntry:\n    socket.create_connection(('127.0.0.1', PORT), timeout=2)\n"
        "except OSError:\n    found = False\n" + IF_FOUND,
        3,
    ),
    "looks for the host": (
        "import os\nfound = [f for f in ('/run', '/var', '/sys', '/etc/passwd') if os.path.exists(f)]\n"
        + IF_FOUND,
        3,
    ),
    "prints 1 GB": (RIGHT + "for _ in range(1000):\n    print('x' * 10**6)\n", 6),
    "prints 1 GB past Python": (
        RIGHT + "import os\nfor _ in range(1000):\n    os.write(1, b'x' * 10**6)\n",
        6,
    ),
    "displays a script": (
        "from IPython.display import HTML, Javascript, display\n"
        "display(HTML('<script>alert(1)</script>'), Javascript('alert(1)'))\n" + RIGHT,
        6,
    ),
}
