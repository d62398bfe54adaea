"""nbgrader's settings for the course. A course folder holds a link to this file, so formgrader reads them as well."""

import sys
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    GetGrades,
    IgnorePattern,
    LimitOutput,
    SaveAutoGrades,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from classroom.apart import RunApart
from classroom.course import ForStudents
from classroom.exchange import Collect
from classroom.pages import markdown2html

c = get_config()  # noqa: F821 (nbgrader defines it)

c.CourseDirectory.course_id = "minitf"
c.ExchangeFactory.collect = Collect
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.GenerateAssignment.preprocessors = [*GenerateAssignment().preprocessors, ForStudents]

# nbgrader's own steps, but for RunApart in the place of Execute
c.Autograde.autograde_preprocessors = [
    RunApart,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]

# a student sees the messages of hidden tests, and not the tests
c.GenerateFeedback.preprocessors = [ClearHiddenTests, GetGrades, CSSHTMLHeaderPreprocessor]

# no answer runs a script in the browser of those who mark it
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {"markdown2html": markdown2html}
