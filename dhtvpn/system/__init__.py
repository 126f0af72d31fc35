"""Linux: the TUN device, links, addresses and routes, and what this process may do.

Nothing here outlives the process: the only thing made is the TUN device, and its addresses and the routes
that come with them disappear when its last descriptor is closed, also after ``kill -9``.
"""

from dhtvpn.system import only_rtnetlink

only_rtnetlink.replace()
