"""What is kept on disk: artefacts in one sealed file each, and every other file in one step."""

from dynmech.files.artefact import fingerprint as fingerprint
from dynmech.files.artefact import load as load
from dynmech.files.artefact import mark_of as mark_of
from dynmech.files.artefact import save as save
from dynmech.files.document import is_whole as is_whole
from dynmech.files.document import sealed as sealed
from dynmech.files.kept import Kept as Kept
from dynmech.files.parts import Parts as Parts
from dynmech.files.writing import write as write
