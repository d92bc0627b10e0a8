"""What an admin does to a node, by the functions that `rabbitmqctl` calls there: it takes a second for each
call, and one node is asked for hundreds."""

import rabbitmq

ACTOR = '<<"test">>'


def binary(text):
    """A text as Erlang writes it."""
    return '<<"' + text.replace("\\", "\\\\").replace('"', '\\"') + '">>'


class Admin:
    def __init__(self, node):
        self._node = node

    def eval(self, text):
        return self._node.eval(text)

    def do(self, text):
        """Evaluates what is `ok` where it was done."""
        answer = self.eval(text)
        if answer != "ok":
            raise rabbitmq.FixtureError(f"{text} is {answer}")

    def set_permissions(self, user, configure, write, read, vhost="asgi"):
        rights = ", ".join(map(binary, (user, vhost, configure, write, read)))
        self.do(f"rabbit_auth_backend_internal:set_permissions({rights}, {ACTOR}).")

    def clear_permissions(self, user, vhost="asgi"):
        self.do("rabbit_auth_backend_internal:clear_permissions("
                f"{binary(user)}, {binary(vhost)}, {ACTOR}).")

    def change_password(self, user, password):
        self.do("rabbit_auth_backend_internal:change_password("
                f"{binary(user)}, {binary(password)}, {ACTOR}).")

    def set_user_limits(self, user, limits):
        self.do("rabbit_auth_backend_internal:set_user_limits("
                f"{binary(user)}, {binary(limits)}, {ACTOR}).")

    def clear_user_limits(self, user):
        self.do(f"rabbit_auth_backend_internal:clear_user_limits({binary(user)}, <<\"all\">>, {ACTOR}).")

    def set_vhost_limits(self, vhost, limits):
        self.do(f"rabbit_vhost_limit:parse_set({binary(vhost)}, {binary(limits)}, {ACTOR}).")

    def clear_vhost_limits(self, vhost):
        self.do(f"rabbit_vhost_limit:clear({binary(vhost)}, {ACTOR}).")

    def set_application(self, name, value):
        """A setting that the broker reads whenever it needs it; the value that it had."""
        return self.eval(f"{{ok, Old}} = application:get_env(rabbit, {name}), "
                         f"ok = application:set_env(rabbit, {name}, {value}), Old.")
