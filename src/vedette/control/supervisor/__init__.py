"""Keeps a node's processes alive and owns its sockets.

    vedette up ── starts ──▶ guardian ──▶ supervisor ──▶ engine
                              (fds)         (fds)    ├──▶ control
                                                     └──▶ models ──▶ one process for each model

Why two small processes and not one. A listening socket lives as long as one process holds it. `kill -9` of any one
process must refuse no connection and lose no child, so every socket is held twice, and somebody is always left who
notices:

- The *supervisor* starts, watches and restarts the engine, control and the keeper of models. When one dies, the
  supervisor still holds its sockets: the kernel queues new connections until the next one accepts them. Those of models
  are the keeper's own: only the engine calls there (ADR 0048).
- The *guardian* does nothing but hold the same sockets and start the supervisor again. The engine and control are not
  touched when a supervisor dies: the new one finds them (run/supervisor.json, then /proc) and watches them by pidfd,
  which needs no parenthood.
- When the guardian dies, the supervisor turns itself into the guardian (exec: same pid, same descriptors, engine and
  control stay its children) and starts a new supervisor. So there is one direction of starting, and no third watcher.

Considered and not taken: control holding copies of the listeners (the design forbids it the public listener);
passing descriptors back from the engine by SCM_RIGHTS (the engine would have to speak a second protocol, and a node
whose engine and supervisor die together would lose its sockets); PR_SET_PDEATHSIG (kills what should survive).

If guardian and supervisor are killed in the same instant, the engine goes on serving what it has; `vedette up` and
`vedette down` find what is left by its command line (`--role R --home HOME`) and end it. Nothing is left behind.

Must not: hold a key, read a manifest, or take input from the network.
"""
