"""What the sandbox costs, beside the same thing without it. Run by ``make bench``; docs/performance.md explains it.

    __main__.py     the command line: measure, print, write JSON
    figures.py      the table of figures, with their goals
    model.py        pure: what a figure and a metric are
    summary.py      pure: medians, paired ratios, the printed table
    contenders.py   ours, plain, bwrap, sandlock: how each starts a kernel and a command
    kernels.py      a Jupyter kernel of one contender, driven by jupyter_client
    commands.py     a program of programs/ run in one contender
    processes.py    memory, processor time and context switches out of /proc
    receivers.py    what is connected to
    programs/       what runs inside: one small program per kind of call, the same text for every contender

The other modules hold one figure each: one function that measures one contender once.
"""
