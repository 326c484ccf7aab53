"""What is kept on disk: artefacts in one sealed file each, and every other file in one step."""

from dynmech.files.artefact import fingerprint as fingerprint
from dynmech.files.artefact import load as load
from dynmech.files.artefact import save as save
from dynmech.files.writing import write as write
