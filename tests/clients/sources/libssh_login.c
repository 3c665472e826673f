/* libssh_login PORT USER COMMAND: runs COMMAND on 127.0.0.1 with the first key of the agent that may log in there,
 * by libssh, and prints what it prints. It looks at no host key. */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(ssh_session session, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    unsigned int port = atoi(argv[1]);
    ssh_session session = ssh_new();
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &(int){0});
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, argv[2]);
    if (ssh_connect(session) != SSH_OK)
        return fail(session, "connect");
    if (ssh_userauth_agent(session, NULL) != SSH_AUTH_SUCCESS)
        return fail(session, "agent");
    ssh_channel channel = ssh_channel_new(session);
    if (ssh_channel_open_session(channel) != SSH_OK || ssh_channel_request_exec(channel, argv[3]) != SSH_OK)
        return fail(session, "command");
    char text[256];
    int count = ssh_channel_read(channel, text, sizeof text, 0);
    if (count < 0)
        return fail(session, "output");
    fwrite(text, 1, count, stdout);
    ssh_disconnect(session);
    return 0;
}
