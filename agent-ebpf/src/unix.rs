//! Local sockets that lead past the fence: a labelled task may not connect to a database's unix socket.
