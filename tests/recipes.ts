/**
 * What the pages give to copy, as modules.
 *
 * @module
 */

/**
 * A declaration of a page: its snippet up to there is a module.
 *
 * @param page `protocols`, in docs/.
 * @param name Of a class, a function or a constant.
 */
export async function recipe(
  page: string,
  name: string,
  // deno-lint-ignore no-explicit-any -- the checker does not know it
): Promise<any> {
  const url = new URL(`../docs/${page}.md`, import.meta.url);
  const declared = new RegExp(
    `^\`\`\`ts\\n((?:(?!\`\`\`).*\\n)*?.*\\b(?:class|const|function) ${name}\\b` +
      "(?:.*\\n)*?\\};?\\n)",
    "m",
  );
  const module = declared.exec(await Deno.readTextFile(url));
  if (!module) throw new Error(`no ${name} in ${page}.md`);
  const code = `${module[1]}export { ${name} as recipe };`;
  const data = `data:application/typescript,${encodeURIComponent(code)}`;
  return (await import(data)).recipe;
}
