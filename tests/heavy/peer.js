// Submits jobs with the vendor's own JavaScript client, all at once, and prints what it gets.
// Reads from its standard input {url, partner_id, api_key, callback_url, jobs: [[partner_params, images, id_info, options]]}.
const { IDApi, WebApi } = require("smile-identity-core");

async function main() {
  const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const web = new WebApi(asked.partner_id, asked.callback_url, asked.api_key, asked.url);
  const id = new IDApi(asked.partner_id, asked.api_key, asked.url);
  const answers = await Promise.all(
    asked.jobs.map(async ([params, images, idInfo, options]) => {
      const submitted = await web.submit_job(params, images, idInfo, options);
      const polled = await id.pollJobStatus(params);
      return { submitted, polled };
    }),
  );
  console.log(JSON.stringify(answers));
}

main().catch((error) => {
  console.error(error.response ? error.response.data : error);
  process.exit(1);
});
