"""ESP32-WROOM-32 on the post board: GPIO numbers. No strapping pins (0, 2, 5, 12, 15) where a level is driven."""

MODEL = "esp32"
TIER = 0  # software: keys lie in flash (laterne_protocol.credential.TIERS)
I2C_ID, I2C_SDA, I2C_SCL = 0, 21, 22
UART_ID, UART_TX, UART_RX = 2, 17, 16
UART_DE = 4  # RS-485 driver enable; harmless where the line is point to point
SERVICE_PIN = 27  # switch to ground: low is closed
ADC_PIN = 34  # input only, left open: noise for random numbers
LED_PIN = 13
