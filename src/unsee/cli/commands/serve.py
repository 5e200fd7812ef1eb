"""Ask the model before and after in the browser: own pictures, own questions, leaks marked."""

from __future__ import annotations

import argparse
import os
import sys

from unsee.cli.commands._shared import OK, add_plugins, benchmark_of, data_options, plugin_option, print_remark, say
from unsee.errors import Terminated

TOKEN = "UNSEE_TOKEN"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", metavar="RUN", help="run folder; with --before also any model")
    parser.add_argument(
        "--before", default="", metavar="M", help="model before (default: the one the run was made from)"
    )
    parser.add_argument("--data", default="", metavar="D", help="pictures and questions (default: those of the run)")
    parser.add_argument("--benchmark", metavar="NAME", help="layout of the data; default: recognise it")
    data_options(parser)
    parser.add_argument(
        "--project", default="requests", metavar="DIR", help="folder that gets deletion requests (default: requests)"
    )
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="port (default: 7860; 0 = any free one)")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address (default: this machine only)")
    parser.add_argument(
        "--token", default="", metavar="T", help=f"what users must know (default: ${TOKEN}, else a random one)"
    )
    plugin_option(parser)


def action(options: argparse.Namespace) -> int:
    """Run the command until Ctrl-C and return its exit code."""
    from unsee.workflows.serve.server import Access, PageServer

    access = Access(host=options.host, port=options.port, token=options.token or os.environ.get(TOKEN, ""))
    add_plugins(options)
    from unsee.workflows.serve.serve import serve

    def ready(server: PageServer) -> None:
        if not access.loopback:
            print_remark(
                "Plain HTTP: who can read the network between reads questions and answers. Put TLS or ssh -L before it."
            )
        say(f"{server.url}\nCtrl-C ends it.")
        sys.stdout.flush()  # it may be a pipe, and nothing else is printed for long

    try:
        serve(
            options.run,
            before=options.before,
            data=options.data,
            benchmark=benchmark_of(vars(options)),
            project=options.project,
            access=access,
            on_ready=ready,
        )
    except Terminated:
        raise
    except KeyboardInterrupt:
        print_remark("Ended.")
    return OK
