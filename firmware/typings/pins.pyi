# What every pin map in firmware/boards/ says; on a board it is /pins.mpy.
MODEL: str
TIER: int
I2C_ID: int
I2C_SDA: int
I2C_SCL: int
UART_ID: int
UART_TX: int
UART_RX: int
UART_DE: int | None
SERVICE_PIN: int
ADC_PIN: int
LED_PIN: int
