import { createApp } from "./app.js";
import { chooseAnalyzer } from "./analyzers/index.js";

const { ANALYZER, HOST = "127.0.0.1", PORT = "3000", TIMEOUT_MS = "30000" } = process.env;

const app = createApp(chooseAnalyzer(ANALYZER), { timeout: Number(TIMEOUT_MS) });
const server = app.listen(Number(PORT), HOST, (error) => {
  if (error) throw error;
  console.log(`listening on http://${HOST}:${server.address().port}`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => server.close());
}
