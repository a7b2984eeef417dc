/** As much of Node's module, which workerd has too, as the tests use. */
declare module "node:assert/strict" {
  type Expected = (new (...parameters: never[]) => Error) | ((error: Error) => boolean);

  interface Assert {
    ok(value: unknown, message?: string): asserts value;
    equal(actual: unknown, expected: unknown, message?: string): void;
    deepEqual(actual: unknown, expected: unknown, message?: string): void;
    match(actual: string, expected: RegExp, message?: string): void;
    throws(body: () => unknown, expected: Expected, message?: string): void;
    rejects(promise: Promise<unknown>, expected: Expected, message?: string): Promise<void>;
  }

  const assert: Assert;
  export default assert;
}
