// The cases that `cargo run -p proto --example spliced` wrote, and what must hold for each in every decoder.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

/// decode(message, bytes) gives a plain object with camelCase keys.
export function checkAll(decoder, folder, decode) {
  const facts = fs.readdirSync(folder).filter((name) => name.endsWith(".json"));
  assert(facts.length > 0, `no cases in ${folder}`);
  for (const file of facts) {
    const name = file.slice(0, -".json".length);
    const { message, ...wanted } = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
    const read = (form) => fs.readFileSync(path.join(folder, `${name}.${form}.bin`));

    const stored = decode(message, read("stored"));
    const spliced = decode(message, read("spliced"));
    assert.equal(spliced.metadata.name ?? "", wanted.name, `${decoder} ${name}: the name was lost`);
    assert.equal(Object.keys(spliced.metadata.labels ?? {}).length, wanted.labels, `${decoder} ${name}: labels were lost`);
    assert.equal(spliced.metadata.resourceVersion, wanted.resourceVersion, `${decoder} ${name}`);
    const { resourceVersion: _, ...metadata } = spliced.metadata;
    const { resourceVersion: __, ...storedMetadata } = stored.metadata ?? metadata;
    assert.deepEqual({ ...spliced, metadata }, { ...stored, metadata: storedMetadata }, `${decoder} ${name}: the objects differ`);

    // The same bytes as an arm of the union: the arm's name is the message's, in lowerCamel.
    const object = decode("forestay.api.v1.Object", read("object"));
    const arm = Object.keys(object).find((key) => object[key]?.metadata && key !== "metadata");
    assert.deepEqual(object[arm], spliced, `${decoder} ${name}: the arm ${arm} differs`);
  }
  console.log(`${decoder}: ${facts.length} objects decode alike`);
}
