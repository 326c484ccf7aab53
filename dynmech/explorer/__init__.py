"""One page that shows a mechanism to people: no server, no network, nothing to install."""

from dynmech.explorer.report import report as report
