"""The page: questions in any browser, with nothing to install there.

`host` is what may be asked of it and by whom, free of any web framework; `app` puts it on the network; `static` is the
page itself, in plain JavaScript; `command` is `prefrl serve`, `prefrl invite` and `prefrl forget`.
"""
