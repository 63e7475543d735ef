"""Options of the ``remote`` driver."""

from pathlib import Path

from semagent.errors import ConfigError
from semagent.keys import ClientKeys, check_endpoint, load_client_keys
from semagent.options import Options, Seconds


class RemoteOptions(Options, frozen=True, kw_only=True):
    """Where the microscope PC is, and how long to wait for it.

    Attributes:
        endpoint: ``tcp://host:port`` of ``semagent serve``.
        client_key: this machine's secret certificate, ``client.key_secret``.
        server_key: the microscope PC's public certificate, ``server.key``.
        connect_timeout_s: for the connection to come about.
        answer_timeout_s: for the settings to be read; an acquisition may take this much longer
            than its own time-out, for the way there and back.
        move_timeout_s: for one action to be carried out and settle.
        silence_timeout_s: longest time without any sign of life of the microscope PC. A frame
            has to get through the network in less.
    """

    endpoint: str
    client_key: str | None = None
    server_key: str | None = None
    connect_timeout_s: Seconds = 5.0
    answer_timeout_s: Seconds = 10.0
    move_timeout_s: Seconds = 120.0
    silence_timeout_s: Seconds = 10.0

    def load_keys(self) -> ClientKeys | None:
        """The keys the files hold, ``None`` where none are needed.

        Raises:
            ConfigError: only one of the two is given, a file cannot be used, or the endpoint is
                on another machine and there are no keys.
        """
        where = "driver remote: endpoint"
        if self.client_key is None and self.server_key is None:
            check_endpoint(self.endpoint, has_keys=False, where=where)
            return None
        if self.client_key is None or self.server_key is None:
            missing = "client_key" if self.client_key is None else "server_key"
            raise ConfigError(f"driver remote: {missing} is missing; give both keys, or none")
        check_endpoint(self.endpoint, has_keys=True, where=where)
        return load_client_keys(Path(self.client_key), Path(self.server_key))
