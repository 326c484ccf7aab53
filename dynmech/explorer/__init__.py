"""One page that shows a mechanism to people: no server, no network, nothing to install.

`source/` holds the script's sources, which use d3 and Observable Plot; `explorer.js` is built from
them by `make explorer` and committed, so that nobody needs node but who changes them.
"""

from dynmech.explorer.report import report as report
from dynmech.explorer.widget import explore as explore
