"""Grades as tables, for a spreadsheet and in the columns that Canvas and Moodle take.

Each is an exporter of nbgrader: nbgrader export --exporter=classroom.export.CanvasTable --to canvas.csv
"""

import csv

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.plugins import ExportPlugin


class Table(ExportPlugin):
    """One row for each student, one column for each assignment."""

    def export(self, gradebook):
        """Write the table to `self.to`."""
        chosen = [a for a in gradebook.assignments if not self.assignment or a.name in self.assignment]
        rows = self.head(chosen)
        for student in sorted(gradebook.students, key=_by_name):
            rows.append([*self.identify(student), *(_score(gradebook, a, student) for a in chosen)])
        with open(self.to or "grades.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def head(self, assignments):
        return [["student_id", "last_name", "first_name", "email", *(a.name for a in assignments)]]

    def identify(self, student):
        return [student.id, student.last_name, student.first_name, student.email]


class CanvasTable(Table):
    """As Canvas imports grades: "Student" and "ID" come first, "Section" last before the assignments.

    Canvas finds a student by the ID, which is `lms_user_id` in nbgrader, else by the login.
    """

    def head(self, assignments):
        columns = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
        names = [*columns, *(a.name for a in assignments)]
        return [names, ["Points Possible", "", "", "", "", *(a.max_score for a in assignments)]]

    def identify(self, student):
        name = ", ".join(filter(None, (student.last_name, student.first_name))) or student.id
        return [name, student.lms_user_id, "", student.id, ""]


class MoodleTable(Table):
    """As Moodle exports grades; its import asks which column identifies a student."""

    def head(self, assignments):
        columns = ["First name", "Last name", "ID number", "Email address"]
        return [[*columns, *(f"Assignment: {a.name} (Real)" for a in assignments)]]

    def identify(self, student):
        return [student.first_name, student.last_name, student.id, student.email]


def write_all(db_url, assignment, folder):
    """Write ASSIGNMENT.csv, ASSIGNMENT_canvas.csv and ASSIGNMENT_moodle.csv; their paths."""
    tables = {"": Table, "_canvas": CanvasTable, "_moodle": MoodleTable}
    paths = [folder / f"{assignment}{suffix}.csv" for suffix in tables]
    for path, table in zip(paths, tables.values(), strict=True):
        with Gradebook(db_url) as gradebook:
            table(to=str(path), assignment=[assignment]).export(gradebook)
    return paths


def _by_name(student):
    return student.last_name or "", student.first_name or "", student.id


def _score(gradebook, assignment, student):
    """Points after the penalty for lateness; empty where nothing was submitted, which is not the same as zero."""
    try:
        submission = gradebook.find_submission(assignment.name, student.id)
    except MissingEntry:
        return ""
    return max(0.0, submission.score - (submission.late_submission_penalty or 0))
