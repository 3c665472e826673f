// login.js PORT USER COMMAND [-A]: runs COMMAND on 127.0.0.1 with the first key of the agent that may log in there,
// by npm's ssh2, and prints what it prints. It looks at no host key.
const { Client } = require('ssh2');

const [port, username, command, forwarding] = process.argv.slice(2);
const client = new Client();
client.on('ready', () => {
  client.exec(command, (error, stream) => {
    if (error) throw error;
    stream.on('close', () => client.end()).pipe(process.stdout);
  });
});
client.connect({
  host: '127.0.0.1', port, username, agent: process.env.SSH_AUTH_SOCK, agentForward: Boolean(forwarding),
});
